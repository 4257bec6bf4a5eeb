"""The loop of a person in napari: a dock of buttons, and layers to paint on. The only room that knows napari and Qt."""
