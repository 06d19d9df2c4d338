"""Work of one Job in several processes of a pod, and in several pods."""
