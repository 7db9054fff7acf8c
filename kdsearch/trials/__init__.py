"""What is stored about a trial: recipe, learning curve, scores and record; free of torch."""
