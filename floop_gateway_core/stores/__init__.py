"""Where state lives: protocols in `base`, and one module for each kind of store. Policy decides, a store only keeps."""
