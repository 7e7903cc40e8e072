"""Training: objectives, warm-up, the GRPO loop, milestones, checkpoints."""
