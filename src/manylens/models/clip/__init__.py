"""CLIP (Radford et al., 2021), SigLIP (Zhai et al., 2023) and SigLIP 2: pictures and words in one space."""
