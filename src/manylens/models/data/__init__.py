"""Tables and vectors that the models use; `README.md` says where each comes from."""
