"""What PPO, GRPO and RLOO are made of: samples, rewards, a critic, vLLM."""
