"""The policy: base model, adapters, rollouts, log-probabilities."""
