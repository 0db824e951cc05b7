"""What runs the image tower: torch everywhere, OpenVINO on x86 CPUs where it is installed.

base       the contract
choice     which one, and the check against the plain tower before it is used
module     torch, with the normalisation layers folded away, eager or compiled
staging    batches on their way to a GPU
graph      OpenVINO: a compiled graph, kept on disk between processes
recipe     what decides the graph
store      where it is kept
"""
