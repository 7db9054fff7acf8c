"""Study files: text in, a frozen and validated StudyConfig out."""
