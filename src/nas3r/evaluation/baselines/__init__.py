"""What a learnt model has to beat: copying, guessing, and classical geometry on the same images."""
