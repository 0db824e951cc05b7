"""Jobs on Ray: rows of images and texts to a table of vectors.

embed      the main job; its keyword arguments are its configuration
backfill   the same for the rows of a table that is there
running    one run of it, on the driver: receipts, rounds of commits, the account
gathering  rounds of commits that end in time
rounds     when receipts become a version of the table
plan       the Ray Data plan: read and decode in tasks, embed and write in a pool of actors
cluster    which Ray, and how its processors are divided
sources    whatever holds the rows
columns    which column is what
ids        names for rows
policy     what is done about rows that are there, doubled, changed or gone
rollcall   every row says its id before any is embedded
ledger     which id is whose, and what is done about it
ledger_actor the same in a process of its own
idset      the hashes it remembers
reading    tables of a split, read again where that may help
decode     rows to pixels, in tasks
encode     pixels and texts to vectors and fragments, in actors
gaps       rows of a table that lack a vector, to pixels, in tasks
vectors    pixels and texts to vectors, in actors
filling    one run of backfill, on the driver
fill_rounds when vectors become a version of the table
batches    how many rows the model is given at once, and which are to blame for an error
watchdog   ends a worker that makes no progress
attempts   storage calls, repeated where that may help
receipts   what a worker tells the driver
report     the account of a run
progress   how far it is
failures   what Ray raises, in one line
stopping   SIGTERM and Ctrl-C
command    what the command lines share

Nothing is imported here: the worker processes of a job start sooner with only what they need.
"""
