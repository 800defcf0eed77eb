plugin "pets" {
  enabled = true
}

plugin "terraform" {
  enabled = false
}
