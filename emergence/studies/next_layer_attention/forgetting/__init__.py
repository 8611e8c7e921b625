"""What is left of a first task when others have been learnt after it, rule by rule."""
