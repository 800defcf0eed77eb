resource "random_pet" "cat" {
  prefix = "tom"
}

resource "random_pet" "dog" {
  length = 3
}
