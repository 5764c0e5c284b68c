"""What should the rotation predictor read, and should it be trained (ADR 2)?"""
