"""headstrong: adversarial robustness of multi-task networks, from data to figures."""

__version__ = "0.1.0"
