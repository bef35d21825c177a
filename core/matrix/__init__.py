"""Who may speak to whom: every pair of pods, or of namespaces, at every port that somebody names, with the reason."""
