"""The machine: files, locks, memory, processes, devices, notices."""
