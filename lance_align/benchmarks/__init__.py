"""Ways to do the same work, measured side by side in one run; `pipelines/benchmark.py` prints them.

measuring    contenders in turns, medians and ratios
weights      a checkpoint of align-base's configuration, made here
inputs       pictures and captions
photographs  encoded pictures of three sizes and formats
towers       the image and the text tower against transformers and LanceDB's way
decoding     encoded pictures to pixels against Pillow and transformers' processor
jobs         whole jobs against other ways to do them
ways         these ways, a program each
processes    what a program and those below it take
growth       the job alone on more and more rows
vectors      many vectors to search in
search       from words to rows of a table
families     the other families at their published sizes
gpu          both towers on a GPU
card         what a GPU can do at most
"""
