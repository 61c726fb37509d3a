"""CLIPSeg (Lüddecke and Ecker, 2022): masks of what words name."""
