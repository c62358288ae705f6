"""The episode offered to other tools: each file is one tool's form of it, over `hub.episodes`."""
