"""What translators are trained on: parameters, or what the network computes with them."""
