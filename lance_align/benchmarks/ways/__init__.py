"""Whole jobs as programs, each as its documentation shows it: a Parquet file of JPEGs in, a Lance table of vectors out.

Each is run by itself, ``python FILE INPUT MODEL DATABASE ...``, and imports nothing of this package but ours. The table
is called ``t`` and has the columns id and vector.

ours        this package's job
loop        transformers and `table.add`, in batches of 32
ray_data    Ray Data's batch inference with an actor class
daft_embed  Daft's `embed_image`
"""
