"""Jobs, in one process or on Ray: rows of images and texts to a table of vectors.

embed      the main job; its keyword arguments are its configuration
backfill   the same for the rows of a table that is there
describe   a column of texts about the pictures of a table that is there
train      training on a table of pairs: the job's configuration
training_job        what each process of a run is told, and does
training_run        a run from its begin to its account, in one process or several
training_cluster    several, of Ray Train
training_progress   how far it is
training_report     its account, and the model card
pairs      such a table's rows
running    one run of it, on the driver: receipts, rounds of commits, the account
gathering  rounds of commits that end in time
rounds     when receipts become a version of the table
plan       which splits a task reads, and what the workers are
executors  where both run: this process, or a Ray cluster
cluster    which Ray
shape      how an executor's processors are divided
sources    whatever holds the rows
columns    which column is what
ids        names for rows
ledger     which id is whose, and what is done about it
stages     what worker processes do with rows
filling    the parts of the jobs that fill a column
indexing   the indexes of a table after a job
checks     what they refuse before they begin
policy     what is done about rows that are there, doubled, changed or gone
watchdog   ends a worker that makes no progress
attempts   storage calls, repeated where that may help
receipts   what a worker tells the driver
report     the account of a run
progress   how far it is
failures   whatever ends a job, in one line
stopping   SIGTERM and Ctrl-C
command    what the command lines share
aftercare  what they check and clean up when a job is done

Nothing is imported here: the worker processes of a job start sooner with only what they need.
"""
