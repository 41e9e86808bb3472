"""PyTorch datasets for NVIDIA AIStore that read through a cache shared by every process of a machine."""
