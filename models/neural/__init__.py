"""Reward models in torch: the only folder where ``import torch`` is legal."""
