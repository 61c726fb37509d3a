"""SAM 2 and 2.1 (Ravi et al., 2024): pictures and videos.

:mod:`.spec` reads a checkpoint's config, :mod:`.parts` cuts its network into the pieces that run, :mod:`.networks` puts
these on an engine, :mod:`.memory` is what is remembered of a video, :mod:`.tracker` follows objects through it,
:mod:`.stream` keeps a video open, and :mod:`.model` is the family.
"""
