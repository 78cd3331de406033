"""The work pools: whole runs are for the one, what needs a GPU for the other."""

CPU_POOL, GPU_POOL = "refseg-cpu", "refseg-gpu"
