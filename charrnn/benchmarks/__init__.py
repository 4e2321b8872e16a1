"""Speed against baselines, measured in turns in one process: python -m charrnn.benchmarks.NAME"""
