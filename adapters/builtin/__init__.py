"""The families that come with the project: importing this package registers them."""

from adapters.builtin import default, parlm_tiny

__all__ = ["default", "parlm_tiny"]
