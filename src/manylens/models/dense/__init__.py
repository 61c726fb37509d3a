"""What patch features of any encoder can do: match examples, carry labels through frames, vote, find what stands out.

Arrays in, arrays out, without torch and without a model: every family that has dense features shares these.
"""
