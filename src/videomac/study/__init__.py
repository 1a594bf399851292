"""`videomac study`: a table of pre-trainings that differ in one thing each, judged alike, over several seeds."""
