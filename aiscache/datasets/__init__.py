"""The PyTorch datasets, API-compatible with `aistore.pytorch`; `aiscache` names them all."""
