"""SegGPT (Wang et al., 2023, https://arxiv.org/abs/2304.03284), on Painter: segments what examples show, by colour."""
