"""Which id is whose in one run, and what is done about it.

rollcall   every row says its id before any is embedded
ledger     who said which id first, what the table holds, who may embed
actor      the same in a process of its own, and how tasks and the driver reach it
idset      the hashes it remembers
"""
