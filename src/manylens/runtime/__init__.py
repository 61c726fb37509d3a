"""What every model runs on: folders, memory, engines, the embedding store, the ledger and the executors.

This floor knows no model family and no catalog: it takes plain values. Nothing heavy is imported here.
"""
