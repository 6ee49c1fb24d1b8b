"""The paper's hosts on MNIST (shipped whole), FashionMNIST and USPS (through torchvision)."""
