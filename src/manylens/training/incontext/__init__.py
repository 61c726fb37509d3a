"""Training in context: two pictures with painted masks, one above the other, of which hidden parts are painted again.

After Painter and SegGPT (Wang et al., 2023): :mod:`.pairs` finds pictures that share a class, :mod:`.painting` gives
each class or instance a colour at random, the same in both, :mod:`.hiding` hides parts of the paint, and :mod:`.losses`
scores what is painted there.
"""
