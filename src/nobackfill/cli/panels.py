"""Names of panels of the help that several verbs use."""

ADVANCED = "Advanced"
"""Of options that few users need; a verb's help shows at most twelve others before it."""
