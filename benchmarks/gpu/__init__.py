"""What one GPU does with koinize: `benchmarks/gpu.sh`."""
