"""How a run starts and stops: environment, rendezvous, preemption, job scripts."""
