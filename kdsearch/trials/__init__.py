"""What is stored of a trial: recipe, learning curve, scores, record; free of torch."""
