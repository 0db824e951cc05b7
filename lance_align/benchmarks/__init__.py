"""Ways to do the same work, measured side by side in one run; `pipelines/benchmark.py` prints them.

measuring  contenders in turns, medians and ratios
weights    a checkpoint of align-base's configuration, made here
inputs     pictures and captions
towers     the image and the text tower against transformers and LanceDB's way
vectors    many vectors to search in
search     from words to rows of a table
"""
