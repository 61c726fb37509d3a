"""Learning without labels: DINO with the terms of DINOv2, masked autoencoding, distillation; and whether it goes well.

All of it is plain torch that knows nothing of recipes, loops or files but :mod:`.folders`.
"""
