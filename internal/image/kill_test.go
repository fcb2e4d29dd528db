package image_test

// pullUntilKilled is the child of TestKillInTheMiddleOfAPull.
func pullUntilKilled() {}
