terraform {
  required_providers {
    files = {
      source  = "example.com/demo/files"
      version = "1.2.3"
    }
  }
}

variable "folder" {
  type = string
}

provider "files" {
  folder = var.folder
}

resource "files_document" "greeting" {
  name    = "greeting.txt"
  content = "Hello, Ada.\n"
}

# Its text is not known before there is the other.
resource "files_document" "script" {
  name       = "greet.sh"
  content    = "#!/bin/sh\n# made at ${files_document.greeting.modified}\ncat ${files_document.greeting.path}\n"
  executable = true
}

data "files_documents" "texts" {
  suffixes   = [".txt", ".md"]
  depends_on = [files_document.greeting, files_document.script]
}

output "texts" {
  value = data.files_documents.texts.documents
}
