"""The agents: how the process in the agent container is started, and how its result is read."""
