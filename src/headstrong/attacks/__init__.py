"""Attacks: a balancer (which loss), a stepper (how the image moves) and a threat (where it may go)."""
