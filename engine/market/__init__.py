"""Market data, point in time: sources, labels, indicators, splits, samplers and prompts."""
