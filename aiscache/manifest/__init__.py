"""The listing of a dataset as flat columns in one mapped file."""

from aiscache.manifest.draft import Draft
from aiscache.manifest.layout import Source
from aiscache.manifest.listing import Lister, Listing
from aiscache.manifest.manifest import Manifest
from aiscache.manifest.store import ManifestStore, open_manifests

__all__ = ["Draft", "Lister", "Listing", "Manifest", "ManifestStore", "Source", "open_manifests"]
