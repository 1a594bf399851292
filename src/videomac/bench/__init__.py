"""`videomac bench`: what pre-training costs here, measured in pairs and against the device's own ceilings."""
