"""Fast versions of losses, registered beside their definitions; see `ddsp.core.kernels`."""
