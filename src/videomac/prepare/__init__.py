"""`prepare`: footage cut once into clips that read fast, on one machine or on many."""
